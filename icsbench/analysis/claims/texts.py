"""Names of papers and sentences that several claims share."""

IOFFE = "Ioffe & Szegedy 2015"
SANTURKAR = "Santurkar et al. 2018"
AWAIS = "Awais et al. 2020"
BJORCK = "Bjorck et al. 2018"
YANG = "Yang et al. 2019"
KOHLER = "Kohler et al. 2019"
BROCK = "Brock et al. 2021"
LUO = "Luo et al. 2019"
COHEN = "Cohen et al. 2021"
DE_SMITH = "De & Smith 2020"
DANESHMAND_2020 = "Daneshmand et al. 2020"
DANESHMAND_2021 = "Daneshmand et al. 2021"
NACHUM = "Nachum et al. 2024"
KARAKIDA = "Karakida et al. 2019"
CAO = "Cao et al. 2023"
ZHANG = "Zhang et al. 2019"
BALDUZZI = "Balduzzi et al. 2017"
METEREZ = "Meterez et al. 2024"
GILMER = "Gilmer et al. 2022"
LI_ARORA = "Li & Arora 2020"
ANDREYEV = "Andreyev & Beneventano 2024"

A_FIFTH = 0.8
"""The smallest effect that counts, as a ratio, where no paper names one; upwards it is 1 / 0.8 = 1.25."""

BY_A_FIFTH = "A fifth (0.8, upwards 1.25) is the smallest ratio that would matter to anybody choosing a method."
MATCHED_LR = (
    "At the same learning rate for both (0.1, where a study has several); at each network's own best one see 1b."
)
EDGE = "Beside beta x lr / 2: at 1 (the edge of stability) an update reverses the gradient by its length, unshifted."
